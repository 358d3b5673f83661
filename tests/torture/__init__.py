"""The fault suite: real workers and servers, what is done to them, and what must hold whatever it was.

Where things are:

* `fleet_app.py` is the application that runs, `ledger.py` what its handlers note, `load.py` what is published to it;
* `faults/` is what is done, `scene.py` what a fault has to work with, `proxy.py` the network, `fleet.py` and `children.py` the processes;
* `history.py` is all that happened in a run as values, `checker.py` the invariants over it: pure functions;
* `run.py` is one run, `__main__.py` many, `report.py` their table, `seeded.py` the bugs that must be caught.

A feature of the framework is one file in `features/`, which is found there by itself. Its `FEATURE` says (`feature.py`):

* `kinds`: its kinds of entries with their plans, to be named in the `mix` of a fault; `fields`: what such entries carry (`_type`, a key);
* `handlers`: registers its handlers on the application, in the worker's process. They run inside `ledger.noted`, whatever they do;
* `collect`: reads what its handlers have left on the server, into `history.collected[name]`;
* `invariants`: functions of (history, rules) that yield a `Violation` for whatever must not be. They hold in *every* run, because other
  faults may have its entries in their mix: where one needs what a run lacks, it yields nothing;
* `faults`: `Fault`s with its entries in the `mix`. `network.lost_replies("name of the script", mix=…)` is one for each script it adds,
  `again_and_again(processes.kill, …)` with its mix another.

`features/commits.py` is the model. Add cases to `test_checker.py` that break each invariant once and keep it once in the nearest harmless
case, and a bug to `seeded.py` that it must catch.
"""
