"""Policy bundles: mounted files, read and published to the core as compiled snapshots."""
