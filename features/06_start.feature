@start
Feature: 6. Start the services
  fleetctl says "launched" when start was called, not when a service runs: what systemd says of each unit, on its
  machine, is what counts.

  @mutates @builds
  Scenario: Every unit comes up
    When the operator runs `fleetctl start --no-block units/*.service units/app/*.service`
    Then every unit is active and running within 60 seconds

  Scenario: Every unit runs
    Then every unit is active and running within 10 seconds

  Scenario: Every unit is where its rules allow it
    Then every unit is launched on a machine that its rules allow within 10 seconds
