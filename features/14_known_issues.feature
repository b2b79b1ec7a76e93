@known_issues
Feature: Known issues
  What systemd and fleetctl do that surprises: systemd gives up on a unit that is started too often, and fleetctl needs
  an ssh-agent (fleet issue 139 was a crash without one), knows host keys, and waits for machines that are gone.

  @mutates
  Scenario: systemd gives up on a unit that ends at once, but for one with RestartSec=3
    Given units "gives-up.service" and "keeps-on.service" are there in this scenario only
    When the operator runs `mkdir -p known`
    And the operator runs `printf '[Service]\nExecStart=/bin/false\nRestart=always\n' > known/gives-up.service`
    And the operator runs `{ cat known/gives-up.service; echo RestartSec=3; } > known/keeps-on.service`
    And the operator runs `fleetctl start --no-block known/*.service`
    # by then the starts of 10 seconds, which systemd counts, are not too many
    Then systemd restarts unit "keeps-on.service" at least 2 times in 10 seconds
    And systemd has given up on unit "gives-up.service"
    When the operator runs `fleetctl journal gives-up.service`
    Then the answer says "Start request repeated too quickly"
    When the operator runs `fleetctl destroy gives-up.service keeps-on.service`
    Then nothing is left of units "gives-up.service" and "keeps-on.service" within 10 seconds

  @mutates
  Scenario: Without an ssh-agent, or a key in it, fleetctl says so
    Given the operator has opened another shell, without an ssh-agent
    Then fleetctl's status, journal and ssh of unit "blog.service" fail within 5 seconds, and say "SSH_AUTH_SOCK environment variable is not set"
    When the operator runs `eval $(ssh-agent)`
    Then fleetctl's status, journal and ssh of unit "blog.service" fail within 5 seconds, and say "unable to authenticate"
    When the operator runs `ssh-add ../key`
    Then fleetctl's status, journal and ssh of unit "blog.service" answer within 10 seconds

  @mutates
  Scenario: With a wrong host key fleetctl refuses, until the right ones are taken
    Given the operator knows the machines by the host keys of another cluster
    Then fleetctl's status, journal and ssh of unit "blog.service" fail within 5 seconds, and say "host key mismatch"
    When the operator runs `terraform -chdir=infra/$TARGET output -raw known-hosts > known_hosts`
    Then fleetctl's status, journal and ssh of unit "blog.service" answer within 10 seconds

  @destructive @requires_three_machines
  Scenario: fleetctl never gives up on a machine that takes its connection and is silent, so something else must
    Given the operator has opened another shell, whose tunnel passes by the machine of unit "blog.service"
    When SSH of the machine of unit "blog.service" hangs for 6 seconds
    And the operator runs `timeout 5 fleetctl status blog.service || echo "status $?"` within 10 seconds
    Then the answer says "status 124"
    And fleetctl's status, journal and ssh of unit "blog.service" answer within 10 seconds

  @destructive @requires_three_machines @requires_power
  Scenario: fleetctl gives up on a machine that is gone
    Given the operator has opened another shell, whose tunnel passes by the machine of unit "blog.service"
    When the operator runs `export FLEETCTL_SSH_TIMEOUT=3`
    And the machine of unit "blog.service" is lost
    Then fleetctl's status, journal and ssh of unit "blog.service" fail within 5 seconds, and say "timed out while initiating SSH connection"
    When the lost machine is switched on again
    Then the lost machine answers over SSH again within 60 seconds
    And fleet lists every machine within 60 seconds
    And every unit is active and running within 60 seconds
