"""The two programs of the ambassador pattern: `register` (the sidekick of an app) and `follow` (the ambassador).

An instance of a service is a key of etcd's, /services/SERVICE/MACHINE:CONTAINER, with a time to live and the value
{"host": "192.0.2.1", "port": 49153}: where the service answers. Only the standard library is used, as in the image.
"""
