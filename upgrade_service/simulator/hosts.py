"""The simulator's own endpoints: each host's, the faults and the log. No token needed.

| | |
|---|---|
| `GET /hosts`, `GET /hosts/NAME` | facts, in the shape of an agent's |
| `POST /hosts/NAME/PROJECT/switch` | `{version, restart: true}` |
| `POST /hosts/NAME/PROJECT/run` | `{kind}`: any other action; it is only noted |
| `POST /hosts/NAME/units/UNIT` | `{do: start, stop or restart}` |
| `POST /hosts/NAME/boot` | `{os: {}, hypervisor_version}` |
| `POST /hosts/NAME/power` | `{on: false}`: pull the plug, or put it back |
| `GET /control/log?after=N` | entries of the log after the first N |
| `POST /control/faults` | `{kind, seconds, count, …}`; `DELETE` ends all |
"""

from typing import Any

from upgrade_service.simulator import machines
from upgrade_service.simulator.cloud import Refused
from upgrade_service.simulator.http import Api, Application, Reply, Request, plain_error


def hosts(app: Application, request: Request) -> dict[str, Any]:
    """List hosts with their facts."""
    return {'hosts': [machines.facts(app.cloud, node) for node in app.cloud.nodes.values()]}


def host(app: Application, request: Request, name: str) -> dict[str, Any]:
    """Show the facts of a host; a host that is off does not answer."""
    node = app.cloud.node(name)
    if not node.powered:
        raise Refused(503, f'Host {name} does not answer.', 'HostDown')
    return machines.facts(app.cloud, node)


def switch(app: Application, request: Request, name: str, project: str) -> Reply:
    """Switch a project to another version."""
    body = request.body or {}
    if not body.get('version'):
        raise Refused(400, "'version' is a required property")
    node = app.cloud.node(name)
    machines.switch(app.cloud, node, project, body['version'], body.get('restart', True))
    return Reply(202, machines.facts(app.cloud, node))


def run(app: Application, request: Request, name: str, project: str) -> Reply:
    """Do something else with a project."""
    node = app.cloud.node(name)
    machines.run(app.cloud, node, project, str((request.body or {}).get('kind')))
    return Reply(202, machines.facts(app.cloud, node))


def unit(app: Application, request: Request, name: str, binary: str) -> Reply:
    """Start, stop or restart a unit."""
    node = app.cloud.node(name)
    machines.control_unit(app.cloud, node, binary, str((request.body or {}).get('do')))
    return Reply(202, machines.facts(app.cloud, node))


def boot(app: Application, request: Request, name: str) -> Reply:
    """Reboot."""
    node, body = app.cloud.node(name), request.body or {}
    machines.boot(app.cloud, node, body.get('os'), body.get('hypervisor_version'))
    return Reply(202, {'boot_id': node.boot_id})


def power(app: Application, request: Request, name: str) -> Reply:
    """Switch a host off or on; its units come up as after a boot."""
    node, on = app.cloud.node(name), bool((request.body or {}).get('on', True))
    app.cloud.note('call', 'power', host=name, on=on)
    if node.powered and not on:
        machines.power_off(app.cloud, node)
    elif on and not node.powered:
        machines.power_on(app.cloud, node)
    return Reply(202, machines.facts(app.cloud, node))


def log(app: Application, request: Request) -> dict[str, Any]:
    """Return the log from an index on."""
    after = int(request.get('after') or 0)
    return {
        'log': [
            {'at': entry.at, 'kind': entry.kind, 'what': entry.what, **entry.details}
            for entry in app.cloud.log[after:]
        ]
    }


def inject(app: Application, request: Request) -> Reply:
    """Add a fault; see `Cloud.inject` for the kinds."""
    body = dict(request.body or {})
    app.cloud.inject(str(body.pop('kind', '')), **body)
    return Reply(201)


def clear(app: Application, request: Request) -> Reply:
    """End all faults."""
    app.cloud.clear()
    return Reply(204)


API = Api(
    prefix='hosts',
    routes=(
        ('GET', '/?', hosts),
        ('GET', '/{name}', host),
        ('POST', '/{name}/boot', boot),
        ('POST', '/{name}/power', power),
        ('POST', '/{name}/units/{binary}', unit),
        ('POST', '/{name}/{project}/switch', switch),
        ('POST', '/{name}/{project}/run', run),
    ),
    error=plain_error,
)

CONTROL = Api(
    prefix='control',
    routes=(
        ('GET', '/log', log),
        ('POST', '/faults', inject),
        ('DELETE', '/faults', clear),
    ),
    error=plain_error,
)
