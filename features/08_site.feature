@site
Feature: 8. Access the site and check that all is OK
  Both sites answer at their own names through the entry point's address. Names are resolved to it here; nothing on
  the internet is asked.

  Scenario: The blog is in order
    Then site "blog" answers with status 200 and type "text/html"
    And every link and asset of site "blog" answers

  Scenario: The Japanese blog is in order
    Then site "jpblog" answers with status 200 and type "text/html"
    And every link and asset of site "jpblog" answers

  Scenario: Each site serves its own contents
    Then site "blog" serves exactly the contents deployed as "blog"
    And site "jpblog" serves exactly the contents deployed as "jpblog"
    And site "blog" serves no page of site "jpblog"

  Scenario: A name that is no site's gets none
    Then the entry point answers a request for "nobody.example" with status 404
