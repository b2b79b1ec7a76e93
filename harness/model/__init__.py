"""What the cluster is made of, as pure values: unit files and fleet's placement rules, variables, links of a page."""
