"""Service users, endpoints and roles; safe to run again."""

import openstack

SERVICES = {
    'placement': ('placement', 'http://@API@:8778'),
    'glance': ('image', 'http://@API@:9292'),
    'nova': ('compute', 'http://@API@:8774/v2.1'),
    'neutron': ('network', 'http://@API@:9696'),
    'cinder': ('block-storage', 'http://@API@:8776/v3'),
}
identity = openstack.connect(cloud='admin').identity
project = identity.find_project('service') or identity.create_project(
    name='service', domain_id='default'
)
roles = [identity.find_role(n) or identity.create_role(name=n) for n in ('admin', 'service')]
for name, (kind, url) in SERVICES.items():
    user = identity.find_user(name) or identity.create_user(
        name=name, password='lab', domain_id='default'
    )
    for role in roles:
        identity.assign_project_role_to_user(project, user, role)
    service = identity.find_service(name) or identity.create_service(name=name, type=kind)
    have = {endpoint.interface for endpoint in identity.endpoints(service_id=service.id)}
    for interface in {'public', 'internal', 'admin'} - have:
        identity.create_endpoint(
            service_id=service.id, interface=interface, url=url, region_id='RegionOne'
        )
