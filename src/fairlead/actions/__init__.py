"""Actions: what is done around a plan, by order of a rule or a guard."""
