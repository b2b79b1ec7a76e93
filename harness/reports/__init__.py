"""Pure functions of the document: verdict, HTML, JUnit, the runbook as a page, the live display."""
