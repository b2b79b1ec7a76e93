@infrastructure
Feature: 3. Prepare the infrastructure
  Terraform plans the machines, the operator examines the plan carefully, and Terraform makes exactly that.

  @mutates @builds
  Scenario: The plan makes the machines and nothing else
    When the operator runs `terraform -chdir=infra/$TARGET init`
    And the operator runs `terraform -chdir=infra/$TARGET plan -var-file=../../terraform.tfvars -out=platform.plan`
    Then plan "platform.plan" makes exactly the machines that the variables name
    And plan "platform.plan" destroys nothing
    And plan "platform.plan" opens nothing to the outside but ports 22 and 80

  @mutates @builds
  Scenario: The applied plan becomes a cluster
    When the operator runs `terraform -chdir=infra/$TARGET apply platform.plan`
    Then every machine answers over SSH within 60 seconds
    And every machine reaches the healthy etcd cluster of the first 5 machines within 60 seconds
    And fleet lists every machine within 60 seconds

  Scenario: The cluster is whole
    Then every machine answers over SSH within 10 seconds
    And every machine reaches the healthy etcd cluster of the first 5 machines within 10 seconds
    And fleet lists every machine within 10 seconds

  @requires_state
  Scenario: The cluster's etcd is whole
    Then the cluster has the etcd members that the discovery URL is for, 5 at most

  @requires_state
  Scenario: A second plan is empty
    Then a second plan changes nothing

  Scenario: Every machine has finished its boot
    Then every machine has booted, and no unit is failed, within 10 seconds

  Scenario: Every machine is itself
    Then no two machines share a machine id or an SSH host key
    And every machine tells fleet its own name, and whether it is an entry point, within 10 seconds

  Scenario: The outside reaches SSH and HTTP only
    Given every machine listens on ports 22, 873 and 2379
    Then port 22 of every machine and port 80 of every entry point are open to the outside
    And ports 873, 2379, 2380, 4001, 7001 and 49153 of every machine are closed to the outside
    And the fleet API of every machine listens on no port
