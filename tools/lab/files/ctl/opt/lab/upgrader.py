"""The keystone user who upgrades: an administrator with the role upgrade_operator."""

import openstack

identity = openstack.connect(cloud='admin').identity
project = identity.find_project('admin')
user = identity.find_user('operator') or identity.create_user(
    name='operator', password='lab', domain_id='default'
)
for name in ('admin', 'upgrade_operator'):
    identity.assign_project_role_to_user(project, user, identity.find_role(name))
