@recovery
Feature: Recovery: apps and daemons
  A process that ends is started again by systemd, and one that hangs is ended: an app by its sidekick, which asks it each
  second. What a daemon of a machine carries outlives it.

  @destructive @slow @requires_three_machines
  Scenario: An app hangs, and its sidekick has it started again
    Given the sites are asked 20 times a second each, at a machine that runs neither
    When the app of unit "blog.service" hangs
    Then what was injected is named, and nothing else, within 12 seconds
    And site "blog" is right again within 22 seconds
    And at most 440 of at least 60 requests to site "blog" failed, and none was answered wrongly
    And at most 0 of at least 60 requests to site "jpblog" failed, and none was answered wrongly
    And service "blog" runs and is registered at exactly 1 address within 5 seconds
    When the operator runs `fleetctl journal --lines=20 blog-docker-reg.service`
    Then the answer says "has not answered"

  @destructive @slow @requires_three_machines
  Scenario: The container of an app is paused, and its sidekick has it started again
    Given the sites are asked 20 times a second each, at a machine that runs neither
    When the container of unit "blog.service" is paused
    Then what was injected is named, and nothing else, within 12 seconds
    And site "blog" is right again within 22 seconds
    And at most 440 of at least 60 requests to site "blog" failed, and none was answered wrongly

  @destructive @requires_three_machines
  Scenario: Docker is killed under the containers
    Given the sites are asked 20 times a second each, at a machine that runs neither
    When "docker.service" is killed on the machine of unit "blog.service"
    Then every unit is active and running within 20 seconds
    And site "blog" is right again within 12 seconds
    And at most 180 of at least 60 requests to site "blog" failed, and none was answered wrongly
    And service "blog" runs and is registered at exactly 1 address within 5 seconds

  @destructive @slow @requires_three_machines
  Scenario: Docker is killed as often as it comes up, and systemd does not give up on it
    Given the sites are asked 20 times a second each, at a machine that runs neither
    When "docker.service" is killed 4 times, whenever it is up, on the machine of unit "blog.service"
    Then every unit is active and running within 20 seconds
    And site "blog" is right again within 40 seconds
    And service "blog" runs and is registered at exactly 1 address within 5 seconds

  @destructive @slow @requires_three_machines
  Scenario: Docker is stopped, and started again
    Given the sites are asked 20 times a second each, at a machine that runs neither
    When fault "docker-stopped" is injected
    Then what was injected is named, and nothing else, within 20 seconds
    When fault "docker-stopped" is undone
    Then every unit is active and running within 20 seconds
    And site "blog" is right again within 20 seconds

  @destructive @slow @requires_three_machines
  Scenario: containerd is killed under the containers
    Given the sites are asked 20 times a second each, at a machine that runs neither
    When "containerd.service" is killed on the machine of unit "blog.service"
    Then at most 0 of at least 160 requests to site "blog" failed, and none was answered wrongly
    When unit "blog.service" starts again
    Then site "blog" is right again within 10 seconds
    And at most 200 of at least 60 requests to site "blog" failed, and none was answered wrongly
    And every unit is active and running within 20 seconds

  @destructive @slow @requires_three_machines
  Scenario: fleetd is killed, and what it started goes on
    Given the sites are asked 20 times a second each, at a machine that runs neither
    And the processes of all units are noted
    When "fleet.service" is killed on the machine of unit "blog.service"
    Then fleet lists every machine within 10 seconds
    And every unit has the process that was noted, and no other began, for 10 seconds
    And at most 0 of at least 200 requests to site "blog" failed, and none was answered wrongly
