"""Sphinx configuration of the API reference."""

extensions = ['openstackdocstheme', 'os_api_ref']

project = 'Upgrade Service API Reference'
copyright = 'OpenStack contributors'
root_doc = 'index'
release = ''
version = ''

openstackdocs_repo_name = 'openstack/upgrade-service'
openstackdocs_auto_name = False
openstackdocs_bug_project = 'upgrade-service'
openstackdocs_bug_tag = 'api-ref'

html_theme = 'openstackdocs'
html_theme_options = {'sidebar_dropdown': 'api_ref', 'sidebar_mode': 'toc'}
