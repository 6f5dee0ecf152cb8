"""Sphinx configuration of the documentation."""

extensions = ['openstackdocstheme', 'oslo_config.sphinxext']

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
