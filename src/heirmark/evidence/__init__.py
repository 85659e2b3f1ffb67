"""Evidence for a third person: what was asked and answered, in a folder that can be judged again without the suspect."""
