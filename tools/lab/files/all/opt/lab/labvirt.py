"""The lab's hypervisor: nova's fake driver, with what an upgrade needs to be tested.

A "guest" is a process in a network namespace of its own, kept by systemd
outside nova-compute's unit and plugged into br-int, so it goes on answering
ping while nova-compute or the OVS agent restart, and moves on live migration.
What runs is kept on disk, so a restarted nova-compute finds its guests again.
"""
import glob
import json
import os
import subprocess
import time

from nova.compute import power_state
from nova.virt import fake

GUESTS = '/var/lib/guests'


def run(*words, check=True):
    return subprocess.run(words, check=check, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def attempt(*words):
    return run(*words, check=False).returncode == 0


class LabDriver(fake.FakeDriverWithoutFakeNodes):
    vcpus = int(os.environ.get('LABVIRT_VCPUS', '8'))
    memory_mb = int(os.environ.get('LABVIRT_RAM_MB', '16384'))
    local_gb = 500

    def init_host(self, host):
        super().init_host(host)
        os.makedirs(GUESTS, exist_ok=True)
        for path in glob.glob(GUESTS + '/*.json'):
            with open(path) as f:
                guest = json.load(f)
            if guest['running'] and not self._alive(guest):
                self._start(guest)      # the host itself was rebooted
            self._track(guest)

    # -- bookkeeping
    def _path(self, uuid):
        return f'{GUESTS}/{uuid}.json'

    def _track(self, guest):
        self.resources.claim(guest['vcpus'], guest['memory_mb'], guest['disk_gb'])
        state = power_state.RUNNING if guest['running'] else power_state.SHUTDOWN
        self.instances[guest['uuid']] = fake.FakeInstance(guest['name'], state, guest['uuid'])

    def _save(self, guest):
        with open(self._path(guest['uuid']) + '.new', 'w') as f:
            json.dump(guest, f)
        os.rename(f.name, self._path(guest['uuid']))

    def _load(self, uuid):
        with open(self._path(uuid)) as f:
            return json.load(f)

    # -- the guest itself
    @staticmethod
    def _ns(guest):
        return 'g-' + guest['uuid'][:8]

    def _alive(self, guest):
        return attempt('systemctl', '-q', 'is-active', 'guest-' + guest['uuid'][:8])

    def _prepare(self, guest):
        """All but a running guest: its ports are on the switch, so the network agent wires them."""
        ns = self._ns(guest)
        self._stop(guest)
        run('ip', 'netns', 'add', ns)
        run('ip', '-n', ns, 'link', 'set', 'lo', 'up')
        # announce the addresses when a link comes up
        attempt('ip', 'netns', 'exec', ns, 'sysctl', '-qw', 'net.ipv4.conf.all.arp_notify=1')
        for vif in guest['vifs']:
            self._plug(guest, vif)

    @staticmethod
    def _device(guest, vif):
        return 'eth0' if len(guest['vifs']) == 1 else 'p' + vif['dev'][3:]

    def _plug(self, guest, vif):
        ns, tap, dev = self._ns(guest), vif['dev'], self._device(guest, vif)
        run('ip', 'link', 'add', tap, 'type', 'veth', 'peer', 'name', dev, 'netns', ns)
        run('ip', '-n', ns, 'link', 'set', dev, 'address', vif['mac'])
        for addr in vif['addrs']:
            run('ip', '-n', ns, 'addr', 'add', addr, 'dev', dev)
        run('ip', 'link', 'set', tap, 'up')
        run('ovs-vsctl', '--may-exist', 'add-port', 'br-int', tap, '--', 'set', 'Interface', tap,
            'external_ids:iface-id=' + vif['id'], f'external_ids:attached-mac="{vif["mac"]}"',
            'external_ids:iface-status=active', 'external_ids:vm-uuid=' + guest['uuid'])

    def _start(self, guest, prepared=False):
        ns, short = self._ns(guest), guest['uuid'][:8]
        if not prepared:
            self._prepare(guest)
        for vif in guest['vifs']:
            dev = self._device(guest, vif)
            run('ip', '-n', ns, 'link', 'set', dev, 'up')
            for gateway in vif.get('gateways', ()):
                attempt('ip', '-n', ns, 'route', 'add', 'default', 'via', gateway, 'dev', dev)
            # as a hypervisor does after a move: the switches learn where the address is now
            attempt('systemd-run', '-q', '--collect', 'ip', 'netns', 'exec', ns, 'arping', '-q',
                    '-U', '-c', '5', '-I', dev, vif['addrs'][0].split('/')[0])
        run('systemd-run', '-q', '--collect', '--unit=guest-' + short,
            '--description=guest ' + guest['name'], 'ip', 'netns', 'exec', ns, 'sleep', 'infinity')

    def _stop(self, guest):
        attempt('systemctl', 'stop', 'guest-' + guest['uuid'][:8])
        for vif in guest['vifs']:
            attempt('ovs-vsctl', '--if-exists', 'del-port', 'br-int', vif['dev'])
            attempt('ip', 'link', 'del', vif['dev'])
        attempt('ip', 'netns', 'del', self._ns(guest))

    # -- the driver interface
    @staticmethod
    def _guest(instance, network_info, running):
        vifs = []
        for vif in network_info:
            addrs, gateways = [], []
            for subnet in vif['network']['subnets']:
                prefix = str(subnet['cidr']).split('/')[1]
                addrs += [ip['address'] + '/' + prefix for ip in subnet['ips']]
                if (subnet.get('gateway') or {}).get('address'):
                    gateways.append(subnet['gateway']['address'])
            vifs.append({
                'id': vif['id'], 'mac': vif['address'], 'addrs': addrs, 'gateways': gateways,
                'dev': (vif.get('devname') or 'tap' + vif['id'])[:14],
            })
        return {
            'uuid': instance.uuid, 'name': instance.name, 'running': running, 'vifs': vifs,
            'vcpus': instance.flavor.vcpus, 'memory_mb': instance.flavor.memory_mb,
            'disk_gb': instance.flavor.root_gb, 'since': time.time(),
        }

    def spawn(self, context, instance, image_meta, injected_files, admin_password,
              allocations, network_info=None, block_device_info=None,
              power_on=True, accel_info=None):
        if network_info is None:
            network_info = instance.get_network_info()
        guest = self._guest(instance, network_info, power_on)
        if power_on:
            self._start(guest)
        self._save(guest)
        self._track(guest)

    def destroy(self, context, instance, network_info, block_device_info=None,
                destroy_disks=True, destroy_secrets=True):
        if os.path.exists(self._path(instance.uuid)):
            self._stop(self._load(instance.uuid))
            os.unlink(self._path(instance.uuid))
        super().destroy(context, instance, network_info, block_device_info, destroy_disks)

    def power_off(self, instance, timeout=0, retry_interval=0):
        super().power_off(instance, timeout, retry_interval)
        guest = self._load(instance.uuid)
        self._stop(guest)
        self._save(dict(guest, running=False))

    def power_on(self, context, instance, network_info, *args, **kwargs):
        super().power_on(context, instance, network_info, *args, **kwargs)
        guest = dict(self._load(instance.uuid), running=True)
        self._start(guest)
        self._save(guest)

    # A guest that is to come is plugged in before the source's stops: neutron 29's agent wires no
    # port that appears when the source's binding is already inactive.
    def pre_live_migration(self, context, instance, block_device_info, network_info, disk_info,
                           migrate_data):
        self._prepare(self._guest(instance, network_info, running=True))
        return migrate_data

    def live_migration(self, context, instance, dest, post_method, recover_method,
                       block_migration=False, migrate_data=None):
        # LABVIRT_MIGRATION_S: how long a guest takes; a file of that name in
        # /run makes the next migrations fail, as a real hypervisor may
        time.sleep(float(os.environ.get('LABVIRT_MIGRATION_S', '2')))
        if os.path.exists('/run/labvirt-fail-migrations'):
            recover_method(context, instance, dest, migrate_data)
            raise RuntimeError('the lab was told to fail migrations')
        post_method(context, instance, dest, block_migration, migrate_data)

    def post_live_migration(self, context, instance, block_device_info, migrate_data=None):
        self.destroy(context, instance, network_info=None, block_device_info=block_device_info)

    def rollback_live_migration_at_destination(self, context, instance, network_info,
                                               block_device_info, destroy_disks=True,
                                               migrate_data=None):
        self._stop(self._guest(instance, network_info, running=False))

    def post_live_migration_at_destination(self, context, instance, network_info,
                                           block_migration=False, block_device_info=None):
        guest = self._guest(instance, network_info, running=True)
        self._start(guest, prepared=os.path.exists('/run/netns/' + self._ns(guest)))
        self._save(guest)
        self._track(guest)
