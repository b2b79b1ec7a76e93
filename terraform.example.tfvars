# Copy to terraform.tfvars: that file is yours and never committed.

# Number of machines in the cluster, 1 to 100.
machines = 3

# Where the machines' etcd members meet for the first time. Every new cluster needs a new one:
# ./bin/use-new-discovery-url writes it here.
discovery_url = ""

# Host names of the two sites.
blog_domain   = "genkisugimoto.com"
jpblog_domain = "jp.genkisugimoto.com"
