@variables
Feature: 1. Prepare variables
  The operator copies the example variables; every later step reads the copy.

  @mutates @builds
  Scenario: The example variables are what the operator starts from
    When the operator runs `cp terraform.example.tfvars terraform.tfvars`
    Then file "terraform.tfvars" is the same as file "terraform.example.tfvars"
    And the variables name a cluster of 1 or more machines
