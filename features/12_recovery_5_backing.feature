@recovery
Feature: Recovery: backing services
  What the cluster was made with may be away: what runs goes on, and what ran on a machine starts there again. What
  needs it waits, says for what, and goes on by itself when it is back.

  @destructive @slow @requires_three_machines
  Scenario: An app starts again while the registry is away
    Given the sites are asked 20 times a second each, at a machine that runs neither
    When fault "registry-gone" is injected
    And the container of unit "blog.service" is killed
    Then site "blog" is right again within 10 seconds
    And at most 200 of at least 60 requests to site "blog" failed, and none was answered wrongly
    And service "blog" runs and is registered at exactly 1 address within 5 seconds
    And what was injected is named, and nothing else, within 20 seconds
    When fault "registry-gone" is undone
    Then all is as it must be within 20 seconds

  @destructive @slow @requires_three_machines @requires_power @requires_services_on_a_machine
  Scenario: The machine with the registry and the discovery service is lost
    Given the sites are asked 20 times a second each, at machine "coreos-1"
    When machine "coreos-0" is lost
    Then site "blog" is right again within 45 seconds
    And site "jpblog" is right again within 45 seconds
    And at most 900 of at least 20 requests to site "blog" failed, and none was answered wrongly
    And at most 900 of at least 20 requests to site "jpblog" failed, and none was answered wrongly
    # what runs needs neither, and what starts again where it ran does not
    When the container of unit "blog.service" is killed
    Then site "blog" is right again within 10 seconds
    When the lost machine is switched on again
    Then the lost machine answers over SSH again within 60 seconds
    And all is as it must be within 60 seconds

  @destructive @slow @requires_three_machines @requires_power @requires_remaking
  Scenario: A machine is replaced while the registry is away
    Given fault "registry-gone" is injected
    When machine "coreos-2" is lost for good
    And the operator runs `terraform -chdir=infra/$TARGET plan -var-file=../../terraform.tfvars -out=platform.plan`
    And the operator runs `terraform -chdir=infra/$TARGET apply platform.plan`
    Then the lost machine answers over SSH again within 60 seconds
    And fleet lists every machine within 60 seconds
    And unit "entry.service" on machine "coreos-2" says "waiting for the image registry" within 20 seconds
    When the operator runs `ssh -F ssh_config coreos-2 journalctl --quiet --lines=5 --unit=entry`
    Then the answer says "waiting for the image registry"
    When fault "registry-gone" is undone
    Then every unit is active and running within 60 seconds
    And all is as it must be within 30 seconds

  @destructive @slow @requires_three_machines @requires_power @requires_name_server
  Scenario: The machine that the names lead to is lost while the name server is silent
    When the machine that the sites' names lead to is lost
    And fault "name-server-silent" is injected
    Then unit "entry-name.service" runs on one machine within 45 seconds
    When fault "name-server-silent" is undone
    Then the sites' names lead to one entry point of the cluster within 15 seconds
    When the lost machine is switched on again
    Then the lost machine answers over SSH again within 60 seconds
    And fleet lists every machine within 60 seconds
    And every unit is active and running within 60 seconds
