"""`openstack upgrade …`: the plugin of OpenStackClient, and the SDK proxy it talks through."""
