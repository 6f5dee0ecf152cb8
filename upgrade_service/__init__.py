"""An OpenStack service that upgrades a running OpenStack cloud."""
