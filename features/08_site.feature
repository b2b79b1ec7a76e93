@site
Feature: 8. Access the site and check that all is OK
  Both sites answer at their own names through the entry point's address. Names are resolved to it here; nothing on
  the internet is asked.

  Scenario: Every site is whole
    Then every link and asset of every site answers within 10 seconds
    And every site serves exactly what was deployed last within 10 seconds
    And no site serves a page of another

  Scenario: A name that is no site's gets none
    Then a request for a name that is no site's gets status 404 within 10 seconds
