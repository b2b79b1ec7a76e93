@discovery
Feature: 2. Use a new discovery URL
  The machines' etcd members meet through a discovery URL, which serves one cluster and never a second one.

  @mutates @builds
  Scenario: A new discovery URL comes into the variables
    Given the variables name a cluster of 1 or more machines
    When the operator runs `./bin/use-new-discovery-url`
    Then the variables differ from file "terraform.example.tfvars" in "discovery_url" only
    And no machine has met through the discovery URL before
    And the discovery URL is for one etcd member a machine, 5 at most
