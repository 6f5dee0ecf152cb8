"""DATA: what is known of each OpenStack project, of its releases, and of the legal policies.

Rules are kept here as facts with their sources, not as code; the planner, the API and
the engines read the same ones.
"""
