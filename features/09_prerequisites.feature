@prerequisites
Feature: Prerequisites
  There are none left: provisioning puts all that the services rely on onto every machine, and the blogs run anywhere.

  Scenario: The units' helper files are on every machine
    Then every file of "container" is on every machine, byte for byte, within 10 seconds

  Scenario: A blog runs on one machine, whichever it is
    Then no unit runs where fleet does not have it within 10 seconds

  Scenario: Every entry point answers for every site
    Given the entry points are the first 5 machines
    Then every entry point answers for every site with what was deployed last within 10 seconds

  @requires_name_server
  Scenario: The sites' names lead to an entry point
    Then the sites' names lead to one entry point of the cluster within 10 seconds
