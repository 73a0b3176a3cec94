"""What runs, feeds and watches the services: embedded engines, demo, policies, dashboards."""
