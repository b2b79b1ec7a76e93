@contents
Feature: 7. Deploy the blogs' contents
  Contents go to every machine and are switched over at once; each deployment has a version of its own, which the site
  then tells.

  @mutates @builds
  Scenario: The blog serves what was deployed
    When the operator runs `./bin/deploy-blog blog sites/blog`
    Then site "blog" tells the version that the operator was given
    And site "blog" serves exactly the files of "sites/blog"

  @mutates @builds
  Scenario: The Japanese blog serves what was deployed
    When the operator runs `./bin/deploy-blog jpblog sites/jpblog`
    Then site "jpblog" tells the version that the operator was given
    And site "jpblog" serves exactly the files of "sites/jpblog"
    # twice as long as fleet takes to notice that a machine is lost; no unit begins again meanwhile
    And all stays as it must be for 10 seconds, within 60 seconds

  Scenario: Every machine holds what was deployed last
    Then every machine holds every site as it was deployed last, and no other file, within 10 seconds
