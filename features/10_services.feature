@services
Feature: Changing services
  No app knows an address, and none is known of it: it listens on a port that its machine chose, its sidekick tells etcd
  which, and on every entry point an ambassador, whose servers follow etcd, stands for it. Requests go on all the while
  that something changes; how many may fail is said here, before it is measured. A request is right when it is answered
  with the version that was deployed last, or is meanwhile; another answer of status 200 is wrong, and none may be; all
  else has failed.

  Scenario: Every service is registered where it runs
    Then every service is registered exactly where it runs within 10 seconds

  Scenario: Every ambassador follows the registrations
    Then every ambassador has exactly the registered instances, and takes them for healthy, within 10 seconds

  Scenario: Containers reach etcd through its ambassador only
    Then containers of "blog" reach etcd through its ambassador, and nothing that is closed to them

  @destructive @requires_three_machines
  Scenario: The entry point reaches a site through its ambassador only
    Given the sites are asked 20 times a second each, at a machine that runs neither
    When unit "blog-dynamic-amb.service" is stopped on every machine
    Then requests to site "blog" are answered with status 502 within 5 seconds
    And at most 0 of at least 60 requests to site "jpblog" failed, and none was answered wrongly
    When unit "blog-dynamic-amb.service" is started on every machine
    Then site "blog" is right again within 10 seconds

  @destructive @requires_three_machines
  Scenario: While etcd cannot be asked, ambassadors keep the servers that they have
    Given the sites are asked 20 times a second each, at a machine that runs neither
    When unit "etcd-amb.service" is stopped on every machine
    Then service "blog" is registered nowhere within 10 seconds
    And at most 0 of at least 140 requests to site "blog" failed, and none was answered wrongly
    When unit "etcd-amb.service" is started on every machine
    Then service "blog" runs and is registered at exactly 1 address within 10 seconds
    And every ambassador of "blog" has exactly the registered instances within 10 seconds
    And at most 0 of at least 140 requests to site "blog" failed, and none was answered wrongly

  @destructive @requires_three_machines
  Scenario: An app starts again, on another port
    Given the sites are asked 20 times a second each, at a machine that runs neither
    When unit "blog.service" starts again
    Then service "blog" runs and is registered at exactly 1 address within 10 seconds
    And every ambassador of "blog" has exactly the registered instances within 2 seconds
    And site "blog" is right again within 10 seconds
    And at most 200 of at least 60 requests to site "blog" failed, and none was answered wrongly
    And at most 0 of at least 60 requests to site "jpblog" failed, and none was answered wrongly

  @destructive @requires_three_machines
  Scenario: An app is killed, and comes back with its sidekick
    Given the sites are asked 20 times a second each, at a machine that runs neither
    When the container of unit "blog.service" is killed
    Then service "blog" runs and is registered at exactly 1 address within 15 seconds
    And site "blog" is right again within 15 seconds
    And at most 300 of at least 60 requests to site "blog" failed, and none was answered wrongly
    And at most 0 of at least 60 requests to site "jpblog" failed, and none was answered wrongly
    And every unit is active and running within 30 seconds

  @destructive @requires_three_machines
  Scenario: Apps move to other machines
    Given the sites are asked 20 times a second each, at a machine that runs neither
    When the machine of unit "blog.service" is taken out of service
    Then unit "blog.service" runs on one machine within 20 seconds
    And service "blog" runs and is registered at exactly 1 address within 15 seconds
    And site "blog" is right again within 20 seconds
    And at most 400 of at least 60 requests to site "blog" failed, and none was answered wrongly
    When that machine is put into service again
    Then fleet lists every machine within 30 seconds
    And every unit is active and running within 60 seconds
    And at most 0 of at least 60 requests to site "blog" failed, and none was answered wrongly

  @destructive @requires_three_machines
  Scenario: A registration that leads to another service is not followed
    Given the sites are asked 20 times a second each, at a machine that runs neither
    When a registration of "blog" is left that leads to service "jpblog"
    Then every ambassador of "blog" has exactly the registered instances within 2 seconds
    And at most 0 of at least 100 requests to site "blog" failed, and none was answered wrongly
    And every ambassador of "blog" takes the instances that run for healthy within 5 seconds

  @destructive @requires_three_machines
  Scenario: A registration that was left behind is passed over
    Given the sites are asked 20 times a second each, at a machine that runs neither
    When a registration of "blog" is left that leads to a machine that is gone
    Then every ambassador of "blog" has exactly the registered instances within 2 seconds
    And at most 0 of at least 100 requests to site "blog" failed, and none was answered wrongly
    And every ambassador of "blog" takes the instances that run for healthy within 5 seconds

  @destructive @requires_three_machines
  Scenario: A malformed registration takes nothing down
    Given the sites are asked 20 times a second each, at a machine that runs neither
    When these registrations of "blog" are left
      | no JSON                           |
      | []                                |
      | {"port": 80}                      |
      | {"host": "elsewhere", "port": 80} |
      | {"host": "elsewhere"}             |
    Then at most 0 of at least 100 requests to site "blog" failed, and none was answered wrongly
    And every ambassador of "blog" takes the instances that run for healthy within 5 seconds

  @mutates @requires_three_machines
  Scenario: A blog that is stopped is registered nowhere, and answers 503
    Given the sites are asked 20 times a second each, at a machine that runs neither
    When the operator runs `fleetctl stop blog.service`
    Then service "blog" is registered nowhere within 2 seconds
    And unit "blog-docker-reg.service" runs on no machine within 2 seconds
    And requests to site "blog" are answered with status 503 within 3 seconds
    And at most 0 of at least 60 requests to site "jpblog" failed, and none was answered wrongly
    When the operator runs `fleetctl start --no-block blog.service`
    Then service "blog" runs and is registered at exactly 1 address within 15 seconds
    And site "blog" is right again within 15 seconds
    And every unit is active and running within 30 seconds

  @destructive @requires_three_machines
  Scenario: A second instance carries a blog over the end of the first
    Given the sites are asked 20 times a second each, at a machine that runs neither
    When the operator runs `fleetctl submit units/more/*.service`
    And the operator runs `fleetctl start --no-block blog@2.service blog-docker-reg@2.service`
    Then unit "blog@2.service" runs on one machine within 30 seconds
    And service "blog" runs and is registered at exactly 2 addresses within 15 seconds
    And every ambassador of "blog" takes the instances that run for healthy within 5 seconds
    And at most 0 of at least 60 requests to site "blog" failed, and none was answered wrongly
    When the container of unit "blog.service" is killed
    Then site "blog" is right again within 5 seconds
    And at most 5 of at least 60 requests to site "blog" failed, and none was answered wrongly
    And service "blog" runs and is registered at exactly 2 addresses within 15 seconds
    And every ambassador of "blog" takes the instances that run for healthy within 5 seconds
    When the operator runs `fleetctl destroy blog@2.service blog-docker-reg@2.service`
    Then service "blog" runs and is registered at exactly 1 address within 15 seconds
    And at most 0 of at least 60 requests to site "blog" failed, and none was answered wrongly

  @mutates
  Scenario: A blog is pinned to a machine, and let go again
    When the operator runs `mkdir -p pinned`
    And the operator runs `{ cat units/app/blog.service; printf '\n[X-Fleet]\nMachineMetadata=name=coreos-0\n'; } > pinned/blog.service`
    And the operator runs `fleetctl start --no-block --replace pinned/blog.service`
    Then unit "blog.service" runs on machine "coreos-0" and on no other within 30 seconds
    And service "blog" runs and is registered at exactly 1 address within 15 seconds
    When the operator runs `fleetctl start --no-block --replace units/app/blog.service`
    Then every unit is launched on a machine that its rules allow within 30 seconds
    And every unit is active and running within 30 seconds
    And fleet holds every unit as its file says within 10 seconds
