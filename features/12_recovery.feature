@recovery
Feature: Recovery
  A machine may be lost at any time, without a word. The blogs go on elsewhere with the contents that were deployed last,
  the names lead to another entry point, and the operator follows them.

  @destructive @requires_three_machines @requires_power
  Scenario: The blogs survive the loss of the machine that they run on
    Given the sites are asked 20 times a second each, at a machine that runs neither
    And the operator has opened another shell, whose tunnel leads around the machine of unit "blog.service"
    When the operator runs `export FLEETCTL_SSH_TIMEOUT=3`
    And the machine of unit "blog.service" is lost
    Then fleetctl's status, journal and ssh of unit "blog.service" fail within 5 seconds, and say "timed out while initiating SSH connection"
    And unit "blog.service" runs on one machine within 45 seconds
    And service "blog" runs and is registered at exactly 1 address within 15 seconds
    And site "blog" is right again within 45 seconds
    And site "jpblog" is right again within 45 seconds
    And at most 900 of at least 100 requests to site "blog" failed, and none was answered wrongly
    And at most 900 of at least 100 requests to site "jpblog" failed, and none was answered wrongly
    When the lost machine is switched on again
    Then the lost machine answers over SSH again within 60 seconds
    And fleet lists every machine within 60 seconds
    And every unit is active and running within 60 seconds

  @destructive @requires_three_machines @requires_power @requires_name_server
  Scenario: The names and the operator's tunnel follow when the entry point is lost
    Given the sites are asked 20 times a second each, at their names
    When the machine that the sites' names lead to is lost
    Then the sites' names lead to one entry point of the cluster within 45 seconds
    And site "blog" is right again within 45 seconds
    And site "jpblog" is right again within 45 seconds
    And at most 900 of at least 100 requests to site "blog" failed, and none was answered wrongly
    And at most 900 of at least 100 requests to site "jpblog" failed, and none was answered wrongly
    When the operator runs `export FLEETCTL_TUNNEL=$(dig +short +tcp @$(terraform -chdir=infra/$TARGET output -raw name-server) genkisugimoto.com)`
    And the operator runs `fleetctl list-machines`
    Then the answer lists every machine
    When the lost machine is switched on again
    Then the lost machine answers over SSH again within 60 seconds
    And fleet lists every machine within 60 seconds
    And every unit is active and running within 60 seconds

  @destructive @requires_three_machines @requires_power @requires_remaking
  Scenario: A machine that is lost for good is replaced
    When machine "coreos-2" is lost for good
    And the operator runs `terraform -chdir=infra/$TARGET plan -var-file=../../terraform.tfvars -out=platform.plan`
    Then plan "platform.plan" makes exactly 1 machine
    And plan "platform.plan" destroys nothing
    When the operator runs `terraform -chdir=infra/$TARGET apply platform.plan`
    Then the lost machine answers over SSH again within 60 seconds
    And every machine reaches the healthy etcd cluster of the first 5 machines within 60 seconds
    And fleet lists every machine within 60 seconds
    And every machine holds every site as it was deployed last, and no other file, within 60 seconds
    And every unit is launched on a machine that its rules allow within 60 seconds
    And every unit is active and running within 60 seconds
    And every site serves exactly what was deployed last within 10 seconds

  @destructive @slow @requires_three_machines
  Scenario: Docker's disk is full on a machine, and is freed
    Given the sites are asked 20 times a second each, at a machine that runs neither
    When fault "disk-full" is injected
    Then what was injected is named, and nothing else, within 20 seconds
    And at most 0 of at least 60 requests to site "blog" failed, and none was answered wrongly
    When fault "disk-full" is undone
    Then all is as it must be within 20 seconds
    And at most 0 of at least 60 requests to site "blog" failed, and none was answered wrongly
