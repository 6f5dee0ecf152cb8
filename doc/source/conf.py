"""Sphinx configuration of the documentation."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent / '_ext'))

extensions = [
    'openstackdocstheme',
    'cliff.sphinxext',
    'oslo_config.sphinxext',
    'oslo_policy.sphinxext',
    'upgrade_tables',
]

project = 'Upgrade Service'
copyright = 'OpenStack contributors'
root_doc = 'index'

openstackdocs_repo_name = 'openstack/upgrade-service'
openstackdocs_auto_name = False
openstackdocs_auto_version = False
openstackdocs_use_storyboard = False
openstackdocs_bug_project = 'upgrade-service'
openstackdocs_bug_tag = ''

html_theme = 'openstackdocs'
pygments_style = 'native'
exclude_patterns = ['_generated']
# `openstack upgrade …`: what the client's own options are is said in its documentation
autoprogram_cliff_application = 'openstack'
