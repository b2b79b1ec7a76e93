@troubleshooting
Feature: Troubleshooting
  What is broken is named as what it is, the cause and nothing beside it, and what is typed for it mends it.

  @destructive @requires_three_machines
  Scenario: A machine's etcd does not run, and its filter is gone
    Given fault "etcd-stopped" is injected
    And fault "filter-flushed" is injected as well
    Then what was injected is named, and nothing else, within 20 seconds
    When the operator runs `ssh -F ssh_config coreos-1 sudo systemctl start etcd fleet.socket fleet`
    And the operator runs `ssh -F ssh_config coreos-1 sudo systemctl restart filter`
    Then all is as it must be within 30 seconds

  @destructive
  Scenario: One blog was stopped by fleetctl, the other by systemctl
    Given fault "unit-stopped-by-fleetctl" is injected
    And fault "unit-stopped-by-systemctl" is injected as well
    Then what was injected is named, and nothing else, within 20 seconds
    When the operator runs `fleetctl start --no-block --replace units/app/jpblog.service`
    And the operator runs `fleetctl ssh blog.service sudo systemctl start blog`
    Then all is as it must be within 30 seconds

  @destructive @requires_three_machines
  Scenario: A global unit is stuck on one machine, and begins anew there while the other entry points serve
    Given the sites are asked 20 times a second each, at machine "coreos-0"
    And fault "entry-point-without-routes" is injected
    Then what was injected is named, and nothing else, within 20 seconds
    When the operator runs `ssh -F ssh_config coreos-1 sudo systemctl restart entry`
    Then all is as it must be within 10 seconds
    And at most 0 of at least 20 requests to site "blog" failed, and none was answered wrongly
    And at most 0 of at least 20 requests to site "jpblog" failed, and none was answered wrongly

  @destructive @requires_three_machines
  Scenario: A registration that nobody keeps, and contents that are not as they were deployed
    Given fault "registration-malformed" is injected
    And fault "contents-truncated" is injected as well
    Then what was injected is named, and nothing else, within 20 seconds
    When the operator runs `ssh -F ssh_config coreos-0 ETCDCTL_API=2 etcdctl rm /services/jpblog/drill`
    And the operator runs `./bin/deploy-blog blog sites/blog`
    Then all is as it must be within 30 seconds
