"""Pure functions of the document and its snapshots: verdict, HTML, drawing, JUnit, runbook, live display."""
