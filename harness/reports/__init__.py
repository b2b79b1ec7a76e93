"""Pure functions of the document and its snapshots: verdict, HTML, drawing, JUnit, the runbook as a page, the live
display."""
