"""`python -m cluster.doctor`: can this cluster, as the profile asks it, run the workflow?"""
