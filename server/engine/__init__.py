"""The model thread: scheduler, model runner, slot jobs and decode pipeline. May import the rooms up to `admission`."""
