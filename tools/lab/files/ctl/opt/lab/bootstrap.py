"""Service users, endpoints and roles; safe to run again."""
import openstack

c = openstack.connect(cloud='admin')
idn = c.identity
SERVICES = {
    'placement': ('placement', 'http://@API@:8778'),
    'glance': ('image', 'http://@API@:9292'),
    'nova': ('compute', 'http://@API@:8774/v2.1'),
    'neutron': ('network', 'http://@API@:9696'),
    'cinder': ('block-storage', 'http://@API@:8776/v3'),
}
project = idn.find_project('service') or idn.create_project(name='service', domain_id='default')
roles = {n: idn.find_role(n) or idn.create_role(name=n) for n in ('admin', 'service')}
for name, (kind, url) in SERVICES.items():
    user = idn.find_user(name) or idn.create_user(name=name, password='lab', domain_id='default')
    for role in roles.values():
        idn.assign_project_role_to_user(project, user, role)
    service = idn.find_service(name) or idn.create_service(name=name, type=kind)
    have = {e.interface for e in idn.endpoints(service_id=service.id)}
    for interface in ('public', 'internal', 'admin'):
        if interface not in have:
            idn.create_endpoint(service_id=service.id, interface=interface, url=url, region_id='RegionOne')
