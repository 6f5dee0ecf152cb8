"""Tests of `openstack upgrade …`, run as the real shell against an API made for them."""
