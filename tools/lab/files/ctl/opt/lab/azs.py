"""An availability zone for each pair of computes: az1 is cmp1 and cmp2, az2 is cmp3 and cmp4."""
import openstack

c = openstack.connect(cloud='admin')
for h in sorted((h.name for h in c.compute.hypervisors()), key=lambda n: int(n[3:])):
    name = 'az%d' % ((int(h[3:]) + 1) // 2)
    zone = c.compute.find_aggregate(name) or c.compute.create_aggregate(name=name, availability_zone=name)
    if h not in (zone.hosts or []):
        c.compute.add_host_to_aggregate(zone, h)
    print(name, h)
