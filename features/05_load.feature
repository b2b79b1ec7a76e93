@load
Feature: 5. Load the services
  fleet takes the unit files and decides which machine each is for. Loaded is not yet started.

  @mutates @builds
  Scenario: Every unit is loaded on a machine that its rules allow
    When the operator runs `fleetctl load units/*.service units/app/*.service` within 60 seconds
    Then every unit is loaded on a machine that its rules allow within 30 seconds

  Scenario: fleet knows the units as they are written
    Then fleet holds every unit as its file says within 10 seconds
