@known_issues
Feature: Known issues
  systemd gives up on a unit that is started too often. fleetctl asks machines over SSH: it needs an agent with a key
  (without one it crashed once, fleet issue 139) and right host keys, and says what is missing. (A machine that is gone
  is in the feature on recovery.)

  @destructive @slow
  Scenario: systemd gives up on a unit that ends at once, unless it has RestartSec=3
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
  Scenario: fleetctl waits for ever for a machine that takes its connection and is silent, unless something ends it
    Given the operator has opened another shell, whose tunnel leads around the machine of unit "blog.service"
    When sshd of the machine of unit "blog.service" hangs
    And the operator runs `timeout 5 fleetctl status blog.service || echo "status $?"` within 10 seconds
    Then the answer says "status 124"

  @destructive @slow
  Scenario: An app that requires its sidekick, which is bound to it, stays dead when it is killed
    Given units "bound.service" and "bound-reg.service" are there in this scenario only
    When the operator runs `mkdir -p cycle`
    And the operator runs `printf '[Service]\nExecStart=/bin/sleep infinity\nExecStopPost=/bin/true\nRestart=always\nRestartSec=3\n' > cycle/runs`
    And the operator runs `{ printf '[Unit]\nRequires=bound-reg.service\n'; cat cycle/runs; } > cycle/bound.service`
    And the operator runs `{ printf '[Unit]\nBindsTo=bound.service\nAfter=bound.service\n'; cat cycle/runs; } > cycle/bound-reg.service`
    And the operator runs `printf '[X-Fleet]\nMachineOf=bound.service\n' >> cycle/bound-reg.service`
    And the operator runs `fleetctl start --no-block cycle/*.service`
    Then unit "bound.service" runs on one machine within 10 seconds
    And unit "bound-reg.service" runs on one machine within 5 seconds
    When the operator runs `fleetctl ssh bound.service 'sudo systemctl kill --signal=KILL bound'`
    Then unit "bound.service" runs on no machine for 10 seconds
    When the operator runs `fleetctl destroy bound.service bound-reg.service`
    Then nothing is left of units "bound.service" and "bound-reg.service" within 10 seconds
