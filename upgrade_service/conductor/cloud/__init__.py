"""Steps that the owning conductor carries out through the cloud's own APIs.

`run` is the one door: a step's kind names its function; what that raises becomes the
step's outcome, except that the owner stops (:class:`Interrupted`) or is no longer the
owner.
"""

from collections.abc import Callable

from keystoneauth1 import exceptions as ksa_exceptions
from openstack import exceptions as sdk_exceptions
from oslo_log import log

from upgrade_service import exception
from upgrade_service.conductor.cloud import instances, probes, services
from upgrade_service.conductor.cloud.task import PASS, CloudTask, Interrupted, Unfit, failed
from upgrade_service.strategies import base

LOG = log.getLogger(__name__)

#: kind of step -> what carries it out
RUNNERS: dict[str, Callable[[CloudTask], base.Outcome]] = {
    'check_cloud': probes.check_cloud,
    'disable_host': services.disable_host,
    'drain_host': instances.drain_host,
    'verify_service': services.verify_service,
    'enable_host': services.enable_host,
    'check_versions': probes.check_versions,
    'probe_cloud': probes.probe_cloud,
}

recheck = instances.recheck
survey = probes.survey


def run(task: CloudTask) -> base.Outcome:
    """Carry a cloud step out and say how it ended.

    :raises Interrupted: the owner stops; the progress is saved.
    :raises LostOwnership: another conductor goes on with it.
    """
    kind = task.step['kind']
    try:
        return RUNNERS[kind](task)
    except PASS:
        raise
    except Unfit as unfit:
        return failed(str(unfit), **unfit.data)
    except (sdk_exceptions.SDKException, ksa_exceptions.ClientException) as error:
        return failed(
            f'{kind} of {task.step.get("host") or "the cloud"}: the cloud refuses: '
            f'{error}; put that right, then retry the step'
        )
    except exception.UpgradeError as error:
        return failed(f'{error}')
    except Exception as error:
        LOG.exception('Step %s (%s) broke', task.step.get('id'), kind)
        return failed(
            f'{kind} broke: {type(error).__name__}: {error}; this is a bug of ours: '
            'see the conductor log'
        )


__all__ = ['RUNNERS', 'CloudTask', 'Interrupted', 'recheck', 'run', 'survey']
