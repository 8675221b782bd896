"""What a person touches in JupyterLab; where nothing can be touched, a static copy is shown.

`interestkit` exports the functions that make them. A widget is displayed as two or more outputs:
the controls, and pictures and tables with the same content, which papermill, nbconvert and GitHub
show. Where the controls are alive, the copies are hidden; they follow each change, so that a saved
notebook holds what was last on the screen.
"""
