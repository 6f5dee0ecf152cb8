"""ready.py COMPUTES AGENTS CONTROLLERS: exit 0 when so many, and the volume services, are up."""

import sys

import keystoneauth1.exceptions
import openstack

computes, agents, controllers = map(int, sys.argv[1:])
cloud = openstack.connect(cloud='admin')
try:
    up = {
        'computes': sum(h.state == 'up' for h in cloud.compute.hypervisors(details=True)),
        'agents': sum(agent.is_alive for agent in cloud.network.agents()),
        'volumes': sum(
            service.binary == 'cinder-volume' and service.state == 'up'
            for service in cloud.block_storage.services()
        ),
        'conductors': sum(
            service.binary == 'nova-conductor' and service.state == 'up'
            for service in cloud.compute.services()
        ),
        'images': len(list(cloud.image.images())),
    }
except (openstack.exceptions.SDKException, keystoneauth1.exceptions.ClientException) as error:
    sys.exit(f'not yet: {error}')
wanted = {'computes': computes, 'agents': agents, 'volumes': 2, 'conductors': controllers}
sys.exit(any(up[what] < number for what, number in wanted.items()))
