"""A strategy and an inventory for services in containers: a worked example."""
