@machines
Feature: Changing machines
  A machine that comes later gets the helper files, the contents that were deployed last and its share of the services
  by itself; one that goes takes nothing along.

  @mutates @requires_one_more
  Scenario: A machine is added
    When the operator raises the number of machines by 1
    And the operator runs `terraform -chdir=infra/$TARGET plan -var-file=../../terraform.tfvars -out=platform.plan`
    Then plan "platform.plan" makes exactly 1 machine
    And plan "platform.plan" destroys nothing
    When the operator runs `terraform -chdir=infra/$TARGET apply platform.plan`
    And the operator runs `terraform -chdir=infra/$TARGET output -raw known-hosts > known_hosts`
    And the operator runs `terraform -chdir=infra/$TARGET output -raw ssh-config > ssh_config`
    Then every machine answers over SSH within 60 seconds
    And every machine reaches the healthy etcd cluster of the first 5 machines within 60 seconds
    And fleet lists every machine within 60 seconds
    And every machine holds every site as it was deployed last, and no other file, within 60 seconds
    And every unit is launched on a machine that its rules allow within 60 seconds
    And every unit is active and running within 60 seconds

  @mutates @requires_one_added
  Scenario: A machine is taken out again
    When the operator lowers the number of machines by 1
    And the operator runs `terraform -chdir=infra/$TARGET plan -var-file=../../terraform.tfvars -out=platform.plan`
    Then plan "platform.plan" destroys exactly 1 machine and makes none
    When the operator runs `terraform -chdir=infra/$TARGET apply platform.plan`
    Then fleet lists every machine within 60 seconds
    And every unit is launched on a machine that its rules allow within 60 seconds
    And every unit is active and running within 60 seconds
    And service "blog" runs and is registered at exactly 1 address within 15 seconds
    And service "jpblog" runs and is registered at exactly 1 address within 15 seconds

  @mutates @requires_three_machines
  Scenario: Fewer machines than etcd has members are refused before anything is changed
    When the operator lowers the number of machines below that of etcd's members
    And the operator runs `terraform -chdir=infra/$TARGET plan -var-file=../../terraform.tfvars -out=platform.plan || echo "status $?"`
    Then the answer says "status 1"
    And the refusal says "would take members out of etcd"
    When the operator puts the number of machines back
    Then a second plan changes nothing
