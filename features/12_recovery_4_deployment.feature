@recovery
Feature: Recovery: a deployment is interrupted
  A deployment happens when etcd is told of it, between the unpacking and the switch. Whoever is interrupted, every
  machine comes to what etcd says: it looks every 5 seconds, and it is there within 10. A request is right when it is
  answered with the version that was deployed last, the old one before that moment, either meanwhile.

  @destructive @slow @requires_three_machines
  Scenario: The operator is killed between two machines' switches
    Given the sites are asked 20 times a second each, at a machine that runs neither
    When machine "coreos-2" cannot switch
    And the operator begins to deploy site "blog"
    Then etcd knows the new version, and 2 machines serve it, within 20 seconds
    When the operator is killed
    And every machine can switch again
    Then every machine holds every site as it was deployed last, and no other file, within 10 seconds
    And every entry point answers for every site with what was deployed last within 10 seconds
    And at most 0 of at least 60 requests to site "blog" failed, and none was answered wrongly
    And at most 0 of at least 60 requests to site "jpblog" failed, and none was answered wrongly
    When the operator runs `./bin/deploy-blog blog sites/blog`
    Then site "blog" tells the version that the operator was given
    And at most 0 of at least 60 requests to site "blog" failed, and none was answered wrongly

  @destructive @slow @requires_three_machines
  Scenario: The operator is killed before any machine switches
    Given the sites are asked 20 times a second each, at a machine that runs neither
    When no machine can switch
    And the operator begins to deploy site "blog"
    Then etcd knows the new version, and 0 machines serve it, within 20 seconds
    When the operator is killed
    And every machine can switch again
    Then every machine holds every site as it was deployed last, and no other file, within 10 seconds
    And every entry point answers for every site with what was deployed last within 10 seconds
    And at most 0 of at least 60 requests to site "blog" failed, and none was answered wrongly
    And site "blog" is deployed again within 30 seconds
    And at most 0 of at least 60 requests to site "blog" failed, and none was answered wrongly

  @destructive @slow @requires_three_machines
  Scenario: The operator is killed after the unpacking
    Given the sites are asked 20 times a second each, at a machine that runs neither
    When fault "etcd-without-quorum" is injected
    And the operator begins to deploy site "blog"
    Then every machine holds the new version, and etcd does not know it, within 20 seconds
    When the operator is killed
    And fault "etcd-without-quorum" is undone
    Then every machine holds every site as it was deployed last, and no other file, within 20 seconds
    # fleet asks an etcd that was without a leader again after 60 seconds at most
    And every unit is active and running within 90 seconds
    And every entry point answers for every site with what was deployed last within 20 seconds
    And at most 400 of at least 60 requests to site "blog" failed, and none was answered wrongly
    And site "blog" is deployed again within 30 seconds

  @destructive @slow @requires_three_machines
  Scenario: The operator is killed after the switch
    Given the sites are asked 20 times a second each, at a machine that runs neither
    When fault "container-paused" is injected
    And the operator begins to deploy site "blog"
    Then etcd knows the new version, and 3 machines serve it, within 20 seconds
    When the operator is killed
    And fault "container-paused" is undone
    Then every machine holds every site as it was deployed last, and no other file, within 10 seconds
    And site "blog" is right again within 10 seconds
    And every entry point answers for every site with what was deployed last within 10 seconds
    And at most 200 of at least 60 requests to site "blog" failed, and none was answered wrongly
    And site "blog" is deployed again within 30 seconds

  @destructive @slow @requires_three_machines @requires_power @requires_name_server
  Scenario: A machine is lost while a deployment is under way
    Given the sites are asked 20 times a second each, at their names
    When machine "coreos-2" cannot switch
    And the operator begins to deploy site "blog"
    Then etcd knows the new version, and 2 machines serve it, within 20 seconds
    When machine "coreos-2" is lost
    Then the deployment ends within 90 seconds, and says "coreos-2 switches when it is back"
    And at most 900 of at least 100 requests to site "blog" failed, and none was answered wrongly
    When the lost machine is switched on again
    Then the lost machine answers over SSH again within 60 seconds
    And fleet lists every machine within 60 seconds
    And every machine holds every site as it was deployed last, and no other file, within 10 seconds
    And every unit is active and running within 60 seconds
    And every entry point answers for every site with what was deployed last within 10 seconds
    And site "blog" is deployed again within 30 seconds

  @destructive @slow @requires_three_machines
  Scenario: etcd has no majority when a deployment is to be remembered
    Given the sites are asked 20 times a second each, at a machine that runs neither
    When fault "etcd-without-quorum" is injected
    And the operator begins to deploy site "blog"
    Then the deployment ends within 40 seconds, and says "was not deployed, the version before is served: etcd has a majority"
    When fault "etcd-without-quorum" is undone
    Then every machine holds every site as it was deployed last, and no other file, within 20 seconds
    # fleet asks an etcd that was without a leader again after 60 seconds at most
    And every unit is active and running within 90 seconds
    And every entry point answers for every site with what was deployed last within 20 seconds
    And at most 400 of at least 60 requests to site "blog" failed, and none was answered wrongly
    And site "blog" is deployed again within 30 seconds
