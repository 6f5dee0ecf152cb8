"""An availability zone for each pair of computes: az1 is cmp1 and cmp2, az2 is cmp3 and cmp4."""

import openstack

cloud = openstack.connect(cloud='admin')
for host in sorted((h.name for h in cloud.compute.hypervisors()), key=lambda name: int(name[3:])):
    name = f'az{(int(host[3:]) + 1) // 2}'
    zone = cloud.compute.find_aggregate(name) or cloud.compute.create_aggregate(
        name=name, availability_zone=name
    )
    if host not in (zone.hosts or []):
        cloud.compute.add_host_to_aggregate(zone, host)
    print(name, host)
