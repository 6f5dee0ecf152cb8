"""seed.py [SERVERS]: flavor, image, network, servers spread over the computes, a volume."""

import sys
import typing

import openstack

cloud = openstack.connect(cloud='admin')
compute, network = cloud.compute, cloud.network
Resource = typing.Any


def a_network(name: str, cidr: str = '', dhcp: bool = False, **options: object) -> Resource:
    """The network of that name, with a subnet of the same name."""
    made = network.find_network(name) or network.create_network(name=name, **options)
    if not network.find_subnet(name):
        # the end of the range belongs to whoever looks on
        first = cidr.rpartition('.')[0]
        network.create_subnet(
            name=name,
            network_id=made.id,
            ip_version=4,
            cidr=cidr,
            enable_dhcp=dhcp,
            allocation_pools=[{'start': first + '.10', 'end': first + '.199'}],
        )
    return made


def a_server(name: str, host: str, net: Resource) -> Resource:
    """The server of that name, on that host: left to itself the scheduler puts all on one."""
    return compute.find_server(name) or compute.create_server(
        name=name,
        flavor_id=flavor.id,
        image_id=image.id,
        networks=[{'uuid': net.id}],
        availability_zone=f'{zones[host]}:{host}',
    )


def a_router(lab: Resource) -> Resource:
    """Router r1 between "lab", a network with DHCP, which is returned, and an outer one."""
    outer = a_network(
        'ext',
        '10.97.0.0/24',
        is_router_external=True,
        provider_network_type='flat',
        provider_physical_network='physnet1',
    )
    routed = a_network('routed', '10.98.0.0/24', dhcp=True)
    if not network.find_router('r1'):
        router = network.create_router(name='r1', external_gateway_info={'network_id': outer.id})
        for inner in lab, routed:
            subnet = network.find_subnet(inner.name)
            network.add_interface_to_router(router, subnet_id=subnet.id)
    return routed


def attach_volume(server: Resource) -> str:
    """Attach a new volume, vol1, to a server; return the volume's status."""
    storage = cloud.block_storage
    volume = storage.find_volume('vol1')
    if not volume:
        volume = storage.create_volume(name='vol1', size=1)
        storage.wait_for_status(volume, 'available', wait=60)
        compute.create_volume_attachment(server, volume_id=volume.id)
        storage.wait_for_status(volume, 'in-use', wait=60)
    return str(storage.find_volume('vol1').status)


flavor = compute.find_flavor('m1.lab') or compute.create_flavor(
    name='m1.lab', ram=1024, vcpus=1, disk=1
)
image = cloud.image.find_image('lab') or cloud.create_image(
    'lab', disk_format='raw', container_format='bare', wait=True, data=b'\0' * 65536
)
zones = {s.host: s.availability_zone for s in compute.services() if s.binary == 'nova-compute'}
hosts = sorted(zones)
lab = a_network('lab', '10.99.0.0/24')
number = int(sys.argv[1]) if len(sys.argv) > 1 else 6
servers = [a_server(f'vm{i + 1}', hosts[i % len(hosts)], lab) for i in range(number)]
if any(agent.agent_type == 'L3 agent' for agent in network.agents()):
    routed = a_router(lab)
    servers += [a_server('routed1', hosts[0], routed), a_server('routed2', hosts[-1], routed)]
for server in servers:
    made = compute.wait_for_server(server, wait=120, interval=1)
    print(made.name, made.status, made.compute_host)
print('volume', attach_volume(servers[0]))
