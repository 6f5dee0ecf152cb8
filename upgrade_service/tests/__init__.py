"""The tests; they run on native threads, as the programs do."""

from upgrade_service.cmd import prepare

prepare()
