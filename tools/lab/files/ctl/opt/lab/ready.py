"""ready.py COMPUTES AGENTS CONTROLLERS: exit 0 when so many, and the volume services, are up."""
import sys
import openstack

n_computes, n_agents, n_ctl = map(int, sys.argv[1:])
c = openstack.connect(cloud='admin')
try:
    computes = [h for h in c.compute.hypervisors(details=True) if h.state == 'up']
    agents = [a for a in c.network.agents() if a.is_alive]
    volumes = [s for s in c.block_storage.services() if s.binary == 'cinder-volume' and s.state == 'up']
    conductors = [s for s in c.compute.services() if s.binary == 'nova-conductor' and s.state == 'up']
    images = list(c.image.images())
except Exception as e:
    sys.exit('not yet: %s' % e)
sys.exit(not (len(computes) >= n_computes and len(agents) >= n_agents
              and len(conductors) >= n_ctl and len(volumes) >= 2))
