"""First tenants: flavor, image, network, servers spread over the computes, a volume."""
import sys
import openstack

n = int(sys.argv[1]) if len(sys.argv) > 1 else 6
c = openstack.connect(cloud='admin')
flavor = c.compute.find_flavor('m1.lab') or c.compute.create_flavor(
    name='m1.lab', ram=1024, vcpus=1, disk=1)
image = c.image.find_image('lab') or c.create_image(
    'lab', disk_format='raw', container_format='bare', wait=True, data=b'\0' * 65536)
net = c.network.find_network('lab') or c.network.create_network(name='lab')
if not c.network.find_subnet('lab'):
    c.network.create_subnet(name='lab', network_id=net.id, ip_version=4,
                            cidr='10.99.0.0/24', enable_dhcp=False,
                            allocation_pools=[{'start': '10.99.0.10', 'end': '10.99.0.199'}])
zones = {s.host: s.availability_zone for s in c.compute.services() if s.binary == 'nova-compute'}
computes = sorted(zones)


def server(name, host, net):
    return c.compute.find_server(name) or c.compute.create_server(
        name=name, flavor_id=flavor.id, image_id=image.id, networks=[{'uuid': net.id}],
        availability_zone='%s:%s' % (zones[host], host))


servers = []
for i in range(n):      # round robin: requests this close together all get the same host
    servers.append(server('vm%d' % (i + 1), computes[i % len(computes)], net))
if any(a.agent_type == 'L3 agent' for a in c.network.agents()):
    # router r1 between the lab network, a network with DHCP and an outer one
    ext = c.network.find_network('ext') or c.network.create_network(
        name='ext', is_router_external=True, provider_network_type='flat', provider_physical_network='physnet1')
    routed = c.network.find_network('routed') or c.network.create_network(name='routed')
    for net_, cidr, dhcp in (ext, '10.97.0.0/24', False), (routed, '10.98.0.0/24', True):
        c.network.find_subnet(net_.name) or c.network.create_subnet(
            name=net_.name, network_id=net_.id, ip_version=4, cidr=cidr, enable_dhcp=dhcp)
    if not c.network.find_router('r1'):
        r1 = c.network.create_router(name='r1', external_gateway_info={'network_id': ext.id})
        for name in 'lab', 'routed':
            c.network.add_interface_to_router(r1, subnet_id=c.network.find_subnet(name).id)
    servers += [server('routed%d' % (i + 1), h, routed) for i, h in enumerate((computes[0], computes[-1]))]
for s in servers:
    s = c.compute.wait_for_server(s, wait=120, interval=1)
    print(s.name, s.status, s.compute_host)
if not c.block_storage.find_volume('vol1'):
    vol = c.block_storage.create_volume(name='vol1', size=1)
    c.block_storage.wait_for_status(vol, 'available', wait=60)
    c.compute.create_volume_attachment(servers[0], volume_id=vol.id)
    c.block_storage.wait_for_status(vol, 'in-use', wait=60)
print('volume', c.block_storage.find_volume('vol1').status)
