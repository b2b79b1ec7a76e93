@recovery
Feature: Recovery: etcd
  The blogs need etcd to move, and not to answer. What etcd loses for a while moves nothing and starts nothing twice; what
  it loses for good is made again on the machines, by one word each.

  @destructive @slow @requires_three_machines
  Scenario: The leader of etcd is killed, and nobody notices
    Given the sites are asked 20 times a second each, at a machine that runs neither
    And the processes of all units are noted
    When the leader of etcd is killed
    Then every machine reaches the healthy etcd cluster of the first 5 machines within 10 seconds
    And every unit has the process that was noted, and no other began, for 10 seconds
    And at most 0 of at least 200 requests to site "blog" failed, and none was answered wrongly
    And at most 0 of at least 200 requests to site "jpblog" failed, and none was answered wrongly

  @destructive @slow @requires_three_machines
  Scenario: Without a quorum the blogs go on, and nothing starts twice when it returns
    Given the sites are asked 20 times a second each, at a machine that runs neither
    And the processes of all units are noted
    When fault "etcd-without-quorum" is injected
    Then what was injected is named, and nothing else, within 20 seconds
    And every unit has the process that was noted, and no other began, for 10 seconds
    And at most 0 of at least 300 requests to site "blog" failed, and none was answered wrongly
    And at most 0 of at least 300 requests to site "jpblog" failed, and none was answered wrongly
    # by then fleet has noticed
    When the operator runs `fleetctl list-machines || echo "status $?"` within 10 seconds
    Then the answer says "status 1"
    When fault "etcd-without-quorum" is undone
    Then all is as it must be within 20 seconds
    And every unit has the process that was noted, and no other began, for 10 seconds
    And at most 0 of at least 300 requests to site "blog" failed, and none was answered wrongly
    And at most 0 of at least 300 requests to site "jpblog" failed, and none was answered wrongly

  @destructive @slow @requires_three_machines
  Scenario: A member whose data is damaged is made again
    Given the sites are asked 20 times a second each, at a machine that runs neither
    When fault "etcd-data-damaged" is injected
    Then what was injected is named, and nothing else, within 20 seconds
    When the operator runs `ssh -F ssh_config coreos-1 sudo etcd-anew`
    Then every machine reaches the healthy etcd cluster of the first 5 machines within 10 seconds
    And all is as it must be within 30 seconds
    And at most 200 of at least 300 requests to site "blog" failed, and none was answered wrongly
    And at most 200 of at least 300 requests to site "jpblog" failed, and none was answered wrongly

  @destructive @slow @requires_three_machines
  Scenario: The disk of a member is full, and is freed
    Given the sites are asked 20 times a second each, at a machine that runs neither
    When fault "etcd-disk-full" is injected
    Then what was injected is named, and nothing else, within 20 seconds
    When the operator runs `ssh -F ssh_config coreos-2 sudo du -a /var/lib/etcd`
    And the operator runs `ssh -F ssh_config coreos-2 sudo rm /var/lib/etcd/forgotten`
    And the operator runs `ssh -F ssh_config coreos-2 sudo systemctl start etcd`
    Then all is as it must be within 30 seconds
    When fault "etcd-disk-full" is undone
    Then all is as it must be within 30 seconds
    And at most 200 of at least 100 requests to site "blog" failed, and none was answered wrongly
    And at most 200 of at least 100 requests to site "jpblog" failed, and none was answered wrongly

  @destructive @slow @requires_three_machines
  Scenario: The data of most members is lost, and one has it still
    Given the sites are asked 20 times a second each, at a machine that runs neither
    And the processes of all units are noted
    When fault "etcd-data-lost-on-two" is injected
    Then what was injected is named, and nothing else, within 20 seconds
    When the operator runs `ssh -F ssh_config coreos-0 sudo etcd-anew alone`
    And the operator runs `ssh -F ssh_config coreos-1 sudo etcd-anew`
    And the operator runs `ssh -F ssh_config coreos-2 sudo etcd-anew`
    Then every machine reaches the healthy etcd cluster of the first 5 machines within 10 seconds
    And all is as it must be within 30 seconds
    And every unit has the process that was noted, and no other began, for 10 seconds
    And at most 0 of at least 300 requests to site "blog" failed, and none was answered wrongly
    And at most 0 of at least 300 requests to site "jpblog" failed, and none was answered wrongly

  @destructive @slow @requires_three_machines
  Scenario: All data is lost, and a backup is restored
    Given the sites are asked 20 times a second each, at a machine that runs neither
    When the operator runs `./bin/etcd-backup save etcd.json`
    And fault "etcd-data-lost" is injected
    Then what was injected is named, and nothing else, within 20 seconds
    When the operator runs `ssh -F ssh_config coreos-0 sudo etcd-anew alone`
    And the operator runs `./bin/etcd-backup restore etcd.json`
    And the operator runs `ssh -F ssh_config coreos-1 sudo etcd-anew`
    And the operator runs `ssh -F ssh_config coreos-2 sudo etcd-anew`
    Then all is as it must be within 60 seconds
    And at most 400 of at least 300 requests to site "blog" failed, and none was answered wrongly
    And at most 400 of at least 300 requests to site "jpblog" failed, and none was answered wrongly

  @destructive @slow @requires_three_machines
  Scenario: All data is lost, and there is no backup
    Given the sites are asked 20 times a second each, at a machine that runs neither
    When fault "etcd-data-lost" is injected
    Then what was injected is named, and nothing else, within 20 seconds
    And at most 0 of at least 100 requests to site "blog" failed, and none was answered wrongly
    When the operator runs `ssh -F ssh_config coreos-0 sudo etcd-anew alone`
    And the operator runs `ssh -F ssh_config coreos-1 sudo etcd-anew`
    And the operator runs `ssh -F ssh_config coreos-2 sudo etcd-anew`
    Then fleet lists every machine within 60 seconds
    # what is started while it is being stopped would be stopped
    And nothing is left of units "blog.service" and "jpblog.service" within 60 seconds
    And nothing is left of units "entry.service" and "blog-dynamic-amb.service" within 30 seconds
    And nothing is left of units "etcd-amb.service" and "blog-docker-reg.service" within 30 seconds
    When the operator runs `fleetctl load units/*.service units/app/*.service`
    And the operator runs `fleetctl start --no-block units/*.service units/app/*.service`
    Then every unit is active and running within 60 seconds
    When the operator runs `./bin/deploy-blog blog sites/blog`
    And the operator runs `./bin/deploy-blog jpblog sites/jpblog`
    Then all is as it must be within 30 seconds

  @destructive @slow @requires_three_machines @requires_power @requires_remaking
  Scenario: A machine is replaced while the discovery service is away
    Given fault "discovery-service-gone" is injected
    When machine "coreos-2" is lost for good
    And the operator runs `terraform -chdir=infra/$TARGET plan -var-file=../../terraform.tfvars -out=platform.plan`
    Then plan "platform.plan" makes exactly 1 machine
    When the operator runs `terraform -chdir=infra/$TARGET apply platform.plan`
    Then the lost machine answers over SSH again within 60 seconds
    And every machine reaches the healthy etcd cluster of the first 5 machines within 60 seconds
    And every unit is active and running within 60 seconds
    When fault "discovery-service-gone" is undone
    Then all is as it must be within 30 seconds

  @destructive @slow @requires_three_machines @requires_power @requires_remaking @requires_one_more
  Scenario: A machine is added while another is lost, and is taken out again
    When the operator raises the number of machines by 1
    And machine "coreos-1" is lost for good
    And the operator runs `terraform -chdir=infra/$TARGET plan -var-file=../../terraform.tfvars -out=platform.plan`
    Then plan "platform.plan" makes exactly 2 machines
    And plan "platform.plan" destroys nothing
    When the operator runs `terraform -chdir=infra/$TARGET apply platform.plan`
    And the operator runs `terraform -chdir=infra/$TARGET output -raw known-hosts > known_hosts`
    And the operator runs `terraform -chdir=infra/$TARGET output -raw ssh-config > ssh_config`
    Then the lost machine answers over SSH again within 60 seconds
    And every machine reaches the healthy etcd cluster of the first 5 machines within 60 seconds
    And fleet lists every machine within 60 seconds
    And every unit is active and running within 60 seconds
    When the operator lowers the number of machines by 1
    And the operator runs `terraform -chdir=infra/$TARGET plan -var-file=../../terraform.tfvars -out=platform.plan`
    Then plan "platform.plan" destroys exactly 1 machine and makes none
    When the operator runs `terraform -chdir=infra/$TARGET apply platform.plan`
    Then fleet lists every machine within 60 seconds
    And every unit is active and running within 60 seconds
